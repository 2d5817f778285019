// Bytes and tables: base64 of a buffer there and back, and a check of UTF-8 that counts the characters.
#include "kernel.h"

enum { kBytes = 3 << 20, kEncoded = (kBytes + 2) / 3 * 4, kRounds = 3 };

static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
static uint8_t value_of[256], bytes[kBytes], decoded[kBytes];
static char text[kEncoded];

static void encode(void) {
  for (int i = 0, o = 0; i < kBytes; i += 3, o += 4) {
    const uint32_t three = (uint32_t)bytes[i] << 16 | (uint32_t)bytes[i + 1] << 8 | bytes[i + 2];
    text[o] = digits[three >> 18];
    text[o + 1] = digits[three >> 12 & 63];
    text[o + 2] = digits[three >> 6 & 63];
    text[o + 3] = digits[three & 63];
  }
}

static int decode(void) {
  for (int i = 0, o = 0; i < kEncoded; i += 4, o += 3) {
    const uint32_t a = value_of[(uint8_t)text[i]], b = value_of[(uint8_t)text[i + 1]];
    const uint32_t c = value_of[(uint8_t)text[i + 2]], d = value_of[(uint8_t)text[i + 3]];
    if ((a | b | c | d) > 63) return 0;
    const uint32_t three = a << 18 | b << 12 | c << 6 | d;
    decoded[o] = (uint8_t)(three >> 16);
    decoded[o + 1] = (uint8_t)(three >> 8);
    decoded[o + 2] = (uint8_t)three;
  }
  return 1;
}

// The characters of well-formed UTF-8, or -1 - the offset of the first byte that is not.
static int32_t count_characters(const uint8_t* p, int32_t size) {
  int32_t count = 0;
  for (int32_t i = 0; i < size; count++) {
    const uint8_t lead = p[i];
    const int32_t length = lead < 0x80 ? 1 : lead < 0xC2 ? 0 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : lead < 0xF5 ? 4 : 0;
    if (length == 0 || i + length > size) return -1 - i;
    for (int32_t k = 1; k < length; k++) {
      if ((p[i + k] & 0xC0) != 0x80) return -1 - i;
    }
    if ((lead == 0xE0 && p[i + 1] < 0xA0) || (lead == 0xED && p[i + 1] > 0x9F) || (lead == 0xF0 && p[i + 1] < 0x90) ||
        (lead == 0xF4 && p[i + 1] > 0x8F)) {
      return -1 - i;
    }
    i += length;
  }
  return count;
}

double run(void) {
  for (int i = 0; i < 256; i++) value_of[i] = 255;
  for (int i = 0; i < 64; i++) value_of[(uint8_t)digits[i]] = (uint8_t)i;
  uint64_t random = 37, hash = 0;
  // Text of mostly one-byte characters, with two- and three-byte ones between them.
  int32_t at = 0;
  while (at < kBytes) {
    const uint64_t r = next_random(&random) >> 32;
    if (r % 8 < 6 || at + 3 > kBytes) {
      bytes[at++] = (uint8_t)(' ' + r / 8 % 95);
    } else if (r % 8 == 6) {
      bytes[at++] = (uint8_t)(0xC3 + r / 8 % 8);
      bytes[at++] = (uint8_t)(0x80 + r / 64 % 64);
    } else {
      bytes[at++] = (uint8_t)(0xE1 + r / 8 % 8);
      bytes[at++] = (uint8_t)(0x80 + r / 64 % 64);
      bytes[at++] = (uint8_t)(0x80 + r / 4096 % 64);
    }
  }
  for (int round = 0; round < kRounds; round++) {
    encode();
    if (!decode()) return -1;
    hash = hash * 31 + (uint64_t)(int64_t)count_characters(decoded, kBytes);
    for (int i = 0; i < kBytes; i += 61) hash = hash * 31 + decoded[i];
    bytes[round * 1000] ^= 1;
  }
  return as_checksum(hash);
}
