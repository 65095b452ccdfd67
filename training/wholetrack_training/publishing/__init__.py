"""From a finished run to a published bundle: publish, model card, quantisation."""
