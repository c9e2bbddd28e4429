"""Ready pipelines, by name: one YAML file each."""
