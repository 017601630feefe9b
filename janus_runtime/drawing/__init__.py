"""From prompts to pictures, one module for each way to draw."""
