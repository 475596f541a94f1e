"""What programs ask over HTTP: predictions, scores, decisions, outcomes and the figures of evaluations."""
