"""Between a command and its terminal: streams, status lines, errors, signals, options and help. Knows nothing of models."""
