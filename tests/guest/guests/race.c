// Goes through names that the host exchanges meanwhile (see EscapeRace in wasi_escape_test.cc): "swap" is in turns a
// directory with the file "file" ("inside") and a link to the directory outside that has another ("outside!"), and
// "deep/a/b" moves up, so that the way out of it by ".." gets shorter while it is walked.
#include "spec.h"

enum { kRoundsMax = 2000000, kWanted = 200 };
static u32 inside, refused, done, opened;
static __wasi_filestat_t stat;

// What a call may answer: it was inside, or leads out, or what it names is just not there.
static int counted(u32 error) {
  if (error == 0) ++inside;
  if (error == E(PERM)) ++refused;
  const int known = error == 0 || error == E(PERM) || error == E(NOENT) || error == E(EXIST) || error == E(AGAIN);
  if (!known) fprintf(stderr, "error %u\n", error);
  EXPECT_TRUE(known);
  return error == 0;
}

static void read_inside(void) {
  uint8_t text[16];
  const __wasi_iovec_t vector = {text, sizeof(text)};
  if (!counted(raw_path_open(kRw, 1, PATH("swap/file"), 0, R(FD_READ), 0, 0, at(&opened)))) return;
  EXPECT_OK(raw_fd_read(opened, at(&vector), 1, at(&done)));
  EXPECT_TRUE(done == 6 && memcmp(text, "inside", 6) == 0);
  EXPECT_OK(raw_fd_close(opened));
}

static void write_inside(void) {
  const __wasi_ciovec_t vector = {(const uint8_t*)"inside", 6};
  if (!counted(raw_path_open(kRw, 1, PATH("swap/made"), __WASI_OFLAGS_CREAT | __WASI_OFLAGS_TRUNC, R(FD_WRITE), 0, 0,
                             at(&opened)))) {
    return;
  }
  EXPECT_OK(raw_fd_write(opened, at(&vector), 1, at(&done)));
  EXPECT_OK(raw_fd_close(opened));
}

static void change_names(void) {
  counted(raw_path_unlink_file(kRw, PATH("swap/made")));
  counted(raw_path_create_directory(kRw, PATH("swap/directory")));
  counted(raw_path_remove_directory(kRw, PATH("swap/directory")));
  counted(raw_path_symlink(PATH("file"), kRw, PATH("swap/symlink")));
  counted(raw_path_unlink_file(kRw, PATH("swap/symlink")));
  counted(raw_path_link(kRw, 0, PATH("mine"), kRw, PATH("swap/link")));
  counted(raw_path_unlink_file(kRw, PATH("swap/link")));
  if (counted(raw_path_link(kRw, 0, PATH("swap/file"), kRw, PATH("stolen")))) {
    EXPECT_TRUE(holds(kRw, "stolen", "inside"));
    EXPECT_OK(raw_path_unlink_file(kRw, PATH("stolen")));
  }
  if (counted(raw_path_rename(kRw, PATH("mine"), kRw, PATH("swap/mine")))) {
    while (!counted(raw_path_rename(kRw, PATH("swap/mine"), kRw, PATH("mine")))) {
    }
  }
  if (counted(raw_path_filestat_get(kRw, 1, PATH("swap/file"), at(&stat)))) EXPECT(stat.size, 6);
  counted(raw_path_filestat_set_times(kRw, 1, PATH("swap/file"), 1, 1, __WASI_FSTFLAGS_MTIM));
}

static u32 above(void) {
  const u32 error = raw_path_open(kRw, 1, PATH("deep/a/b/../../../secret"), 0, R(FD_READ), 0, 0, at(&opened));
  EXPECT_TRUE(error == E(NOENT) || error == E(PERM) || error == E(AGAIN));
  return error;
}

int main(void) {
  for (int round = 0; round < kRoundsMax && failures == 0; ++round) {
    if (inside >= kWanted * 5 && refused >= kWanted * 5 && round >= kWanted) break;
    read_inside();
    write_inside();
    change_names();
    above();
  }
  EXPECT_TRUE(inside >= kWanted && refused >= kWanted);  // else nothing was raced
  return finish();
}
