"""Models in the formats of other tools: ONNX files and Hugging Face directories."""
