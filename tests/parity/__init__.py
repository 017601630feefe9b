"""The exported graphs and the runtime against transformers, in fp32."""
