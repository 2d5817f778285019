// Gives its input back.
#include <spore.hpp>

SPORE_FUNCTION {
  spore::write(spore::input());
  return 0;
}
