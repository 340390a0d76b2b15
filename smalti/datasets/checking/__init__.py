"""What `smalti check` measures, one module per question; `smalti.datasets.check` asks them all."""
