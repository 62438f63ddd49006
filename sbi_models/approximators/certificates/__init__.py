"""What an approximator knows of observations that it may be trusted with: learned after a training, saved
with it, asked later."""
