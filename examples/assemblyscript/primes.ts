// Counts the primes below a number, many parts of it at once: each part is a call of this module itself, entered at
// another of its functions.
import { input, print, Call } from "../../sdk/assemblyscript/spore";

const PARTS: i64 = 8;
const NUMBER_MAX: i64 = 100000000;

function isPrime(n: i64): bool {
  for (let i: i64 = 2; i * i <= n; i++) if (n % i == 0) return false;
  return n > 1;
}

function text(bytes: Uint8Array): string {
  return String.UTF8.decodeUnsafe(bytes.dataStart, bytes.length);
}

function fail(why: string): i32 {
  console.error("primes: " + why);
  return 1;
}

// The input is "BEGIN END", the output how many there are.
function countPart(): i32 {
  const range = text(input()).split(" ");
  const end = I64.parseInt(range[1]);
  let count: i64 = 0;
  for (let n = I64.parseInt(range[0]); n < end; n++) count += isPrime(n) ? 1 : 0;
  print(count.toString());
  return 0;
}

export function spore_call(): i32 {
  const below = I64.parseInt(text(input()).trim());
  if (below < 0 || below > NUMBER_MAX) return fail("the input is no number up to 100000000");
  const calls: Call[] = [];
  for (let i: i64 = 0; i < PARTS; i++) {
    const range = (i * below / PARTS).toString() + " " + ((i + 1) * below / PARTS).toString();
    calls.push(Call.self(countPart, Uint8Array.wrap(String.UTF8.encode(range))));
  }
  let sum: i64 = 0;
  for (let i = 0; i < calls.length; i++) {
    const code = calls[i].wait();
    if (code != 0) return fail("a part failed: " + code.toString() + " " + calls[i].message());
    sum += I64.parseInt(text(calls[i].output()));
  }
  print(sum.toString() + "\n");
  return 0;
}
