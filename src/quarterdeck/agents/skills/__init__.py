"""An agent's skills at run time: named in the prompt, loaded when they are needed, their scripts in a sandbox."""
