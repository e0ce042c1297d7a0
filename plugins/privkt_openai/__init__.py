"""Backend `openai`: any server that speaks the OpenAI HTTP interface."""
