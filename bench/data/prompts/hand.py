"""Hands: the task of the paper's diffusive chain-of-thought (arXiv:2502.00639, Appendix F).

Training uses the paper's five prompts. The paper also evaluates on these five; here evaluation uses eight
prompts of our own, because evaluation never uses a prompt that training sees.
"""

TRAIN: tuple[str, ...] = (
    "A realistic open palm facing upward",
    "A picture of a hand facing downward",
    "A hand in a relaxed position",
    "A hand",
    "A photo of a hand",
)
EVAL: tuple[str, ...] = (
    "A close-up photo of a raised hand",
    "A realistic hand with all fingers spread",
    "A hand making a fist",
    "A hand pointing to the left",
    "A photo of a hand resting on a wooden table",
    "A picture of a hand giving a thumbs up",
    "An old man's hand",
    "A child's hand reaching out",
)
