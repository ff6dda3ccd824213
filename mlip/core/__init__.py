"""What every layer may use: fields, units, errors, building objects from configuration."""
