"""VBench (Huang et al. 2024, arXiv:2311.17982): videos of its prompts, its sixteen scores, its table."""
