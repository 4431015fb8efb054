"""Images as the protocol sees them: file to luma, JPEG, degradation, metrics."""
