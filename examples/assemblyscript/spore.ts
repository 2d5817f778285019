// Spore for AssemblyScript: the input of a call, and its output.

// @ts-ignore: decorators are AssemblyScript's
@external("spore", "input_size")
declare function input_size(): u32;
// @ts-ignore: decorators are AssemblyScript's
@external("spore", "input_read")
declare function input_read(offset: u32, to: usize, size_bytes: u32): u32;
// @ts-ignore: decorators are AssemblyScript's
@external("spore", "output_write")
declare function output_write(from: usize, size_bytes: u32): u32;

// The whole input of the call.
export function input(): Uint8Array {
  const bytes = new Uint8Array(input_size());
  input_read(0, bytes.dataStart, bytes.byteLength);
  return bytes;
}

// Appends to the output of the call.
export function write(bytes: Uint8Array): void {
  output_write(bytes.dataStart, bytes.byteLength);
}

// Appends a text, as UTF-8, to the output of the call.
export function print(text: string): void {
  const bytes = String.UTF8.encode(text);
  output_write(changetype<usize>(bytes), bytes.byteLength);
}
