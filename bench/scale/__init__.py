"""What a catalogue of millions of recordings costs: unit costs, a simulation of the pipeline, and a plan."""
