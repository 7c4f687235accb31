"""What several rewards need: checkpoints, preparing pictures and videos, precision. No reward is here."""
