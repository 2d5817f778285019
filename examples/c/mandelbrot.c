// Draws the Mandelbrot set as a PNG. The input may say how: "WIDTH HEIGHT [CENTRE-X CENTRE-Y SPAN]", for instance
// "1200 800 -0.745 0.113 0.01"; an empty one gives the whole set in 600 by 400.
//
// The PNG is written by hand: its data is a zlib stream of stored blocks, which needs no compressor. Eight-bit palette,
// so a picture is WIDTH * HEIGHT bytes and a little more.
#include <spore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { kIterations = 500, kSideMax = 8192, kStoredMax = 65535 };

static uint32_t crc_table[256];

static void make_crc_table(void) {
  for (uint32_t i = 0; i < 256; i++) {
    uint32_t c = i;
    for (int bit = 0; bit < 8; bit++) c = c & 1 ? 0xEDB88320u ^ (c >> 1) : c >> 1;
    crc_table[i] = c;
  }
}

static uint32_t crc32(uint32_t crc, const uint8_t* p, size_t size) {
  crc = ~crc;
  while (size--) crc = crc_table[(crc ^ *p++) & 0xFF] ^ (crc >> 8);
  return ~crc;
}

static uint32_t adler32(const uint8_t* p, size_t size) {
  uint32_t a = 1, b = 0;
  while (size > 0) {
    const size_t part = size < 5552 ? size : 5552;  // the sums cannot overflow within that many
    for (size_t i = 0; i < part; i++) {
      a += p[i];
      b += a;
    }
    a %= 65521;
    b %= 65521;
    p += part;
    size -= part;
  }
  return b << 16 | a;
}

static void put_32(uint8_t* to, uint32_t value) {
  to[0] = (uint8_t)(value >> 24);
  to[1] = (uint8_t)(value >> 16);
  to[2] = (uint8_t)(value >> 8);
  to[3] = (uint8_t)value;
}

// `chunk` has its four-letter type first.
static void write_chunk(const uint8_t* chunk, uint32_t size_without_type) {
  uint8_t word[4];
  put_32(word, size_without_type);
  spore_output_write(word, 4);
  spore_output_write(chunk, size_without_type + 4);
  put_32(word, crc32(0, chunk, size_without_type + 4));
  spore_output_write(word, 4);
}

static void write_header(uint32_t width, uint32_t height) {
  static const uint8_t signature[8] = {0x89, 'P', 'N', 'G', '\r', '\n', 0x1A, '\n'};
  spore_output_write(signature, sizeof(signature));
  uint8_t header[4 + 13] = {'I', 'H', 'D', 'R'};
  put_32(header + 4, width);
  put_32(header + 8, height);
  header[12] = 8;  // bits a pixel
  header[13] = 3;  // a palette
  write_chunk(header, 13);
}

static uint8_t ramp(int at, int peak) {
  const int distance = abs((at - peak + 384) % 256 - 128);
  return (uint8_t)(distance >= 96 ? 0 : 255 - distance * 255 / 96);
}

static void write_palette(void) {
  uint8_t palette[4 + 3 * 256] = {'P', 'L', 'T', 'E'};
  for (int i = 1; i < 256; i++) {  // 0, the set itself, stays black
    const int at = i * 3 % 256;
    palette[4 + 3 * i] = ramp(at, 140);
    palette[4 + 3 * i + 1] = ramp(at, 90);
    palette[4 + 3 * i + 2] = ramp(at, 40);
  }
  write_chunk(palette, 3 * 256);
}

// `rows` in stored blocks, each at most kStoredMax bytes.
static int write_data(const uint8_t* rows, size_t size) {
  const size_t blocks = (size + kStoredMax - 1) / kStoredMax;
  const size_t chunk_bytes = 2 + size + 5 * blocks + 4;
  uint8_t* chunk = malloc(4 + chunk_bytes);
  if (!chunk) return -1;
  memcpy(chunk, "IDAT", 4);
  uint8_t* to = chunk + 4;
  *to++ = 0x78;  // deflate, 32 KiB window
  *to++ = 0x01;
  for (size_t at = 0; at < size; at += kStoredMax) {
    const size_t part = size - at < kStoredMax ? size - at : kStoredMax;
    *to++ = at + part == size;  // the last one
    *to++ = (uint8_t)part;
    *to++ = (uint8_t)(part >> 8);
    *to++ = (uint8_t)~part;
    *to++ = (uint8_t)(~part >> 8);
    memcpy(to, rows + at, part);
    to += part;
  }
  put_32(to, adler32(rows, size));
  write_chunk(chunk, (uint32_t)chunk_bytes);
  free(chunk);
  return 0;
}

static uint8_t colour_at(double cx, double cy) {
  double x = 0, y = 0, xx = 0, yy = 0;
  for (int i = 0; i < kIterations; i++) {
    y = 2 * x * y + cy;
    x = xx - yy + cx;
    xx = x * x;
    yy = y * y;
    if (xx + yy > 4.0) return (uint8_t)(1 + i % 255);
  }
  return 0;
}

static int fail(const char* why) {
  fprintf(stderr, "mandelbrot: %s\n", why);
  return 1;
}

SPORE_FUNCTION {
  char text[256];
  const uint32_t length = spore_input_read(0, text, sizeof(text) - 1);
  text[length] = '\0';
  unsigned width = 600, height = 400;
  double centre_x = -0.65, centre_y = 0, span = 3.2;
  const int read = sscanf(text, "%u %u %lf %lf %lf", &width, &height, &centre_x, &centre_y, &span);
  if (read > 0 && read != 2 && read != 5) return fail("expected WIDTH HEIGHT [CENTRE-X CENTRE-Y SPAN]");
  if (width < 1 || width > kSideMax || height < 1 || height > kSideMax) return fail("a side takes 1 to 8192 pixels");
  if (!(span > 0)) return fail("SPAN must be more than 0");

  const size_t row_bytes = 1 + (size_t)width;  // a filter's number, 0, and the pixels
  uint8_t* rows = malloc(row_bytes * height);
  if (!rows) return fail("out of memory");
  for (unsigned py = 0; py < height; py++) {
    uint8_t* row = rows + row_bytes * py;
    *row++ = 0;
    const double cy = centre_y + span * ((double)py - height / 2.0) / width;
    for (unsigned px = 0; px < width; px++)
      row[px] = colour_at(centre_x + span * ((double)px - width / 2.0) / width, cy);
  }
  make_crc_table();
  write_header(width, height);
  write_palette();
  if (write_data(rows, row_bytes * height) != 0) return fail("out of memory");
  static const uint8_t end[4] = {'I', 'E', 'N', 'D'};
  write_chunk(end, 0);
  free(rows);
  return 0;
}
