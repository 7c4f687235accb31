"""Animals, for Stable Diffusion models.

Training uses the 45 animals that Black et al. 2023 (DDPO, arXiv:2305.13301) train on, each as "a cat".
Evaluation uses 20 animals of our own choice that are not among them.
"""

TRAINED = """
    cat dog horse monkey rabbit zebra spider bird sheep deer cow goat lion tiger bear raccoon fox wolf lizard
    beetle ant butterfly fish shark whale dolphin squirrel mouse rat snake turtle frog chicken duck goose bee
    pig turkey fly llama camel bat gorilla hedgehog kangaroo
"""
HELD_OUT = """
    elephant giraffe penguin owl crocodile octopus flamingo hippopotamus snail lobster peacock panda seal swan
    koala otter moose parrot cheetah crab
"""


def _prompts(animals: str) -> tuple[str, ...]:
    return tuple(f"{'an' if animal[0] in 'aeiou' else 'a'} {animal}" for animal in animals.split())


TRAIN: tuple[str, ...] = _prompts(TRAINED)
EVAL: tuple[str, ...] = _prompts(HELD_OUT)
