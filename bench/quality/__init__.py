"""What precision and quantisation cost in what a model draws and answers."""
