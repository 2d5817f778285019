// Gives its input back, whatever bytes it holds.
Spore.output(Spore.inputBytes());
