// Counts the primes below a number, many parts of it at once: each part is a call of the function "primes", which is this
// one. A part is asked for by two numbers.
const PARTS = 8;
const NUMBER_MAX = 100_000_000;

function isPrime(n) {
  for (let i = 2; i * i <= n; i++) if (n % i === 0) return false;
  return n > 1;
}

const numbers = Spore.input().trim().split(/\s+/).map(Number);
if (numbers.length === 2) {
  let count = 0;
  for (let n = numbers[0]; n < numbers[1]; n++) if (isPrime(n)) count++;
  Spore.output(String(count));
} else {
  const below = numbers[0];
  if (!(below >= 0 && below <= NUMBER_MAX)) throw new RangeError('the input is no number up to 100000000');
  const bound = (i) => Math.floor(i * below / PARTS);
  const parts = Array.from({ length: PARTS }, (_, i) => `${bound(i)} ${bound(i + 1)}`);
  print(Spore.map('primes', parts).reduce((sum, count) => sum + Number(count), 0));
}
