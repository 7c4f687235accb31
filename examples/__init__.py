"""What users copy: a chain of one's own, and the paper's claims on it."""
