"""Truth tables: every number of every kind of arm, against transformers, peft and stock lm-eval alone."""
