"""janus-nano: a tiny Janus of true architecture, trained here on drawn scenes whose truth is known."""
