"""How far an estimator's mean is from the exact gradient, how noisy it is, and what it costs."""
