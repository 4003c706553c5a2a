"""Between text and tokens: tokenizers and chat templates."""
