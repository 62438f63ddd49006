"""Neural likelihood estimation as a workflow: learned likelihoods, and their posteriors for any prior."""
