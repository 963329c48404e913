"""From two states to a plan: diff, steps, order, guard, file. Pure."""
