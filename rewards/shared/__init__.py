"""What several rewards need: reading checkpoints, preparing pictures and videos, precision. No reward is here."""
