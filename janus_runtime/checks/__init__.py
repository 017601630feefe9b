"""Is a bundle right here, and how fast is it."""
