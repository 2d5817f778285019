// Runs the kernels in V8, one at a time, when asked: "INDEX\n" on stdin is answered by "WALL-MS CPU-MS CHECKSUM-BITS\n".
// Arguments: the WebAssembly files. Says "ready" when all are compiled and have run once.
import { readFileSync } from 'node:fs';
import { createInterface } from 'node:readline';

const bits = new DataView(new ArrayBuffer(8));
const kernels = process.argv.slice(2).map((file) => {
  const instance = new WebAssembly.Instance(new WebAssembly.Module(readFileSync(file)), {});
  return instance.exports.run;
});
for (const run of kernels) run();
process.stdout.write('ready\n');

for await (const line of createInterface({ input: process.stdin })) {
  const run = kernels[Number(line)];
  const cpuBegin = process.cpuUsage();
  const begin = process.hrtime.bigint();
  const checksum = run();
  const wall = Number(process.hrtime.bigint() - begin) / 1e6;
  const cpu = process.cpuUsage(cpuBegin);
  bits.setFloat64(0, checksum);
  process.stdout.write(`${wall} ${(cpu.user + cpu.system) / 1e3} ${bits.getBigUint64(0)}\n`);
}
