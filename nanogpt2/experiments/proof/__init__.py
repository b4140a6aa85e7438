"""In: a project, a checkpoint or a folder. Out: what of it belongs together, its signature, its
card. It changes nothing that a run computes."""
