# Gives its input back, whatever bytes it holds.
import sys

sys.stdout.buffer.write(sys.stdin.buffer.read())
