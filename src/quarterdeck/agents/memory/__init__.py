"""Long-term memory of an agent: tools, automatic recall and saving; what is remembered is at the control plane."""
