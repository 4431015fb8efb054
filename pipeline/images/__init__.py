"""Images as the protocol sees them: file to luma, JPEG, degradation, metrics.

Imports served alone, for what a JPEG's header says.
"""
