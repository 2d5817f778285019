// WASI preview 1 function by function, against its specification: a test a function. The checks are in
// guests/spec_*.c; here is the world they run in, which each finds new:
//
//   root/  rw/        "/rw", read-write: up -> "..", etc -> "/etc", outside -> "../outside", pipe (a FIFO)
//          readonly/  "/readonly", read-only: file ("read only"), dir/, link -> "file"
//          outside/   file ("outside")
//          secret     ("secret")
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <fstream>

#include "guest_runner.h"
#include "host/wasi.h"

namespace spore::host {
namespace {

namespace fs = std::filesystem;

struct FunctionCase {
  const char* guest;  // that has the section
  const char* function;
};

void PrintTo(const FunctionCase& one, std::ostream* out) { *out << one.guest << " " << one.function; }

class WasiFunction : public testing::TestWithParam<FunctionCase> {
 protected:
  WasiFunction() {
    fs::create_directories(root_.path() / "rw");
    fs::create_directories(root_.path() / "readonly/dir");
    fs::create_directories(root_.path() / "outside");
    std::ofstream(root_.path() / "readonly/file") << "read only";
    std::ofstream(root_.path() / "outside/file") << "outside";
    std::ofstream(root_.path() / "secret") << "secret";
    fs::create_symlink("file", root_.path() / "readonly/link");
    fs::create_symlink("..", root_.path() / "rw/up");
    fs::create_symlink("/etc", root_.path() / "rw/etc");
    fs::create_symlink("../outside", root_.path() / "rw/outside");
    EXPECT_EQ(::mkfifo((root_.path() / "rw/pipe").c_str(), 0666), 0);
  }

  std::string text_of(const std::string& name) const {
    std::ifstream in(root_.path() / name);
    return std::string(std::istreambuf_iterator<char>(in), {});
  }
  auto entries(const std::string& name) const { return std::distance(fs::directory_iterator(root_.path() / name), {}); }

  TemporaryDirectory root_;
};

TEST_P(WasiFunction, MeetsItsSpecification) {
  CallSetup setup;
  setup.environment = {"A=1", "EMPTY="};
  setup.input = Bytes{'i', 'n', 'p', 'u', 't'};
  setup.preopens = {{(root_.path() / "rw").string(), "/rw", Access::kReadWrite},
                    {(root_.path() / "readonly").string(), "/readonly", Access::kReadOnly}};
  const GuestRun run = run_guest(GetParam().guest, {GetParam().function}, std::move(setup));
  EXPECT_EQ(run.result.kind, CallResult::Kind::kExited) << run.summary();
  EXPECT_EQ(run.result.exit_code, 0) << run.summary();
  EXPECT_EQ(text_of("secret"), "secret");
  EXPECT_EQ(text_of("outside/file"), "outside");
  EXPECT_EQ(text_of("readonly/file"), "read only");
  EXPECT_EQ(entries("."), 4);
  EXPECT_EQ(entries("outside"), 1);
  EXPECT_EQ(entries("readonly"), 3);
  EXPECT_EQ(entries("readonly/dir"), 0);
}

constexpr FunctionCase kFunctions[] = {
    {"spec_fd", "fd_advise"},
    {"spec_fd", "fd_allocate"},
    {"spec_fd", "fd_close"},
    {"spec_fd", "fd_datasync"},
    {"spec_fd", "fd_fdstat_get"},
    {"spec_fd", "fd_fdstat_set_flags"},
    {"spec_fd", "fd_fdstat_set_rights"},
    {"spec_fd", "fd_filestat_get"},
    {"spec_fd", "fd_filestat_set_size"},
    {"spec_fd", "fd_filestat_set_times"},
    {"spec_fd", "fd_prestat_dir_name"},
    {"spec_fd", "fd_prestat_get"},
    {"spec_fd", "fd_readdir"},
    {"spec_fd", "fd_renumber"},
    {"spec_fd", "fd_seek"},
    {"spec_fd", "fd_sync"},
    {"spec_fd", "fd_tell"},
    {"spec_io", "fd_pread"},
    {"spec_io", "fd_pwrite"},
    {"spec_io", "fd_read"},
    {"spec_io", "fd_write"},
    {"spec_path", "path_create_directory"},
    {"spec_path", "path_filestat_get"},
    {"spec_path", "path_filestat_set_times"},
    {"spec_path", "path_link"},
    {"spec_path", "path_open"},
    {"spec_path", "path_readlink"},
    {"spec_path", "path_remove_directory"},
    {"spec_path", "path_rename"},
    {"spec_path", "path_symlink"},
    {"spec_path", "path_unlink_file"},
    {"spec_process", "args_get"},
    {"spec_process", "args_sizes_get"},
    {"spec_process", "clock_res_get"},
    {"spec_process", "clock_time_get"},
    {"spec_process", "environ_get"},
    {"spec_process", "environ_sizes_get"},
    {"spec_process", "poll_oneoff"},
    {"spec_process", "proc_exit"},
    {"spec_process", "proc_raise"},
    {"spec_process", "random_get"},
    {"spec_process", "sched_yield"},
    {"spec_process", "sock_accept"},
    {"spec_process", "sock_recv"},
    {"spec_process", "sock_send"},
    {"spec_process", "sock_shutdown"},
};

// Some file systems keep times that 64 bits of nanoseconds since 1970 cannot tell.
TEST(Filestat, TimesThatDoNotFitAreTheNearestThatDo) {
  struct stat info = {};
  info.st_atim = {-1, 999'999'999};
  info.st_mtim = {18'446'744'073, 709'551'615};  // the last
  info.st_ctim = {18'446'744'073, 709'551'616};
  wasi::Filestat out = wasi::filestat_of(info);
  EXPECT_EQ(out.atim, 0u);
  EXPECT_EQ(out.mtim, UINT64_MAX);
  EXPECT_EQ(out.ctim, UINT64_MAX);
  info.st_mtim = {99'999'999'999, 0};
  info.st_ctim = {INT64_MAX, 999'999'999};
  out = wasi::filestat_of(info);
  EXPECT_EQ(out.mtim, UINT64_MAX);
  EXPECT_EQ(out.ctim, UINT64_MAX);
}

INSTANTIATE_TEST_SUITE_P(Preview1, WasiFunction, testing::ValuesIn(kFunctions),
                         [](const auto& one) { return std::string(one.param.function); });

}  // namespace
}  // namespace spore::host
