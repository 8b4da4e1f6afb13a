"""Fine-tuning of source recovery alone, on codes such as a generator makes."""
