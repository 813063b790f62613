"""The component: YAML in, definitions or a helpful error out."""
