// Gives its input back.
import { input, write } from "../../sdk/assemblyscript/spore";

export function spore_call(): i32 {
  write(input());
  return 0;
}
