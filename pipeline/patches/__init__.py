"""From images to the shards and versions of a patch store. Imports images and datasets."""
