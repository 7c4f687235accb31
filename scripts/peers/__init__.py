"""Other programs that train diffusion models on rewards, measured beside this one on the same model.

    scripts/peers/setup.sh                  # TRL 0.23.1, in an environment of its own
    python -m scripts.peers.compare         # gradients agree; then ratios of time and memory

TRL 0.23.1 is the last version with DDPOTrainer and AlignPropTrainer.
"""
