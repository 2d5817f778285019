#include "host/imports.h"

#include <gtest/gtest.h>

#include <map>
#include <set>

namespace spore::host {
namespace {

using wasm::ExternalKind;
using enum wasm::ValueType;

// A module that imports functions.
class Importer {
 public:
  Importer& function(std::string module, std::string name, wasm::Signature signature) {
    info_.types.push_back(std::move(signature));
    info_.functions.push_back(static_cast<uint32_t>(info_.types.size() - 1));
    info_.imports.push_back({std::move(module), std::move(name), ExternalKind::kFunction, info_.imported_functions++});
    return *this;
  }
  Importer& other(std::string module, std::string name, ExternalKind kind) {
    info_.imports.push_back({std::move(module), std::move(name), kind, 0});
    return *this;
  }
  const wasm::ModuleInfo& info() const { return info_; }

 private:
  wasm::ModuleInfo info_;
};

const wasm::Signature kFdWrite{{kI32, kI32, kI32, kI32}, {kI32}};

TEST(Imports, EachNameIsDeclaredOnce) {
  std::set<std::pair<std::string_view, std::string_view>> names;
  for (const auto& declaration : imports()) {
    EXPECT_TRUE(names.emplace(declaration.module, declaration.name).second) << declaration.name;
    EXPECT_NE(declaration.function, nullptr) << declaration.name;
    EXPECT_FALSE(declaration.documentation.empty()) << declaration.name;
  }
}

TEST(Imports, AllOfWasiPreview1IsThereWithItsSignature) {
  const wasm::Signature two{{kI32, kI32}, {kI32}};
  const std::map<std::string_view, wasm::Signature> wasi = {
      {"args_get", two},
      {"args_sizes_get", two},
      {"environ_get", two},
      {"environ_sizes_get", two},
      {"clock_res_get", two},
      {"clock_time_get", {{kI32, kI64, kI32}, {kI32}}},
      {"fd_advise", {{kI32, kI64, kI64, kI32}, {kI32}}},
      {"fd_allocate", {{kI32, kI64, kI64}, {kI32}}},
      {"fd_close", {{kI32}, {kI32}}},
      {"fd_datasync", {{kI32}, {kI32}}},
      {"fd_fdstat_get", two},
      {"fd_fdstat_set_flags", two},
      {"fd_fdstat_set_rights", {{kI32, kI64, kI64}, {kI32}}},
      {"fd_filestat_get", two},
      {"fd_filestat_set_size", {{kI32, kI64}, {kI32}}},
      {"fd_filestat_set_times", {{kI32, kI64, kI64, kI32}, {kI32}}},
      {"fd_pread", {{kI32, kI32, kI32, kI64, kI32}, {kI32}}},
      {"fd_prestat_get", two},
      {"fd_prestat_dir_name", {{kI32, kI32, kI32}, {kI32}}},
      {"fd_pwrite", {{kI32, kI32, kI32, kI64, kI32}, {kI32}}},
      {"fd_read", kFdWrite},
      {"fd_readdir", {{kI32, kI32, kI32, kI64, kI32}, {kI32}}},
      {"fd_renumber", two},
      {"fd_seek", {{kI32, kI64, kI32, kI32}, {kI32}}},
      {"fd_sync", {{kI32}, {kI32}}},
      {"fd_tell", two},
      {"fd_write", kFdWrite},
      {"path_create_directory", {{kI32, kI32, kI32}, {kI32}}},
      {"path_filestat_get", {{kI32, kI32, kI32, kI32, kI32}, {kI32}}},
      {"path_filestat_set_times", {{kI32, kI32, kI32, kI32, kI64, kI64, kI32}, {kI32}}},
      {"path_link", {{kI32, kI32, kI32, kI32, kI32, kI32, kI32}, {kI32}}},
      {"path_open", {{kI32, kI32, kI32, kI32, kI32, kI64, kI64, kI32, kI32}, {kI32}}},
      {"path_readlink", {{kI32, kI32, kI32, kI32, kI32, kI32}, {kI32}}},
      {"path_remove_directory", {{kI32, kI32, kI32}, {kI32}}},
      {"path_rename", {{kI32, kI32, kI32, kI32, kI32, kI32}, {kI32}}},
      {"path_symlink", {{kI32, kI32, kI32, kI32, kI32}, {kI32}}},
      {"path_unlink_file", {{kI32, kI32, kI32}, {kI32}}},
      {"poll_oneoff", {{kI32, kI32, kI32, kI32}, {kI32}}},
      {"proc_exit", {{kI32}, {}}},
      {"proc_raise", {{kI32}, {kI32}}},
      {"sched_yield", {{}, {kI32}}},
      {"random_get", two},
      {"sock_accept", {{kI32, kI32, kI32}, {kI32}}},
      {"sock_recv", {{kI32, kI32, kI32, kI32, kI32, kI32}, {kI32}}},
      {"sock_send", {{kI32, kI32, kI32, kI32, kI32}, {kI32}}},
      {"sock_shutdown", two},
  };
  ASSERT_EQ(wasi.size(), 46u);
  std::map<std::string_view, wasm::Signature> declared;
  for (const auto& declaration : imports()) {
    if (declaration.module == "wasi_snapshot_preview1") declared.emplace(declaration.name, declaration.signature);
  }
  for (const auto& [name, signature] : wasi) {
    ASSERT_TRUE(declared.contains(name)) << name;
    EXPECT_EQ(declared[name], signature) << name << " is " << to_string(declared[name]);
  }
  EXPECT_EQ(declared.size(), wasi.size());
}

TEST(Link, GivesOneFunctionForEachImportInOrder) {
  const auto links = link(Importer()
                              .function("wasi_snapshot_preview1", "fd_write", kFdWrite)
                              .function("spore", "input_size", {{}, {kI32}})
                              .function("wasi_snapshot_preview1", "fd_write", kFdWrite)
                              .info());
  ASSERT_TRUE(links) << links.error().message;
  ASSERT_EQ(links->size(), 3u);
  EXPECT_EQ((*links)[0], (*links)[2]);
  EXPECT_NE((*links)[0], (*links)[1]);
}

TEST(Link, ErrorListsEveryImportThatIsWrong) {
  const auto links = link(Importer()
                              .function("wasi_snapshot_preview1", "fd_write", kFdWrite)
                              .function("env", "nonesuch", {{kI32, kF64}, {kI64}})
                              .function("wasi_snapshot_preview1", "fd_close", {{kI64}, {kI32}})
                              .function("other", "fd_write", kFdWrite)
                              .other("env", "memory", ExternalKind::kMemory)
                              .other("env", "table", ExternalKind::kTable)
                              .other("env", "g", ExternalKind::kGlobal)
                              .info());
  ASSERT_FALSE(links);
  EXPECT_EQ(links.error().code, ErrorCode::kInvalidModule);
  const std::string& message = links.error().message;
  EXPECT_NE(message.find("6 imports cannot be satisfied"), std::string::npos) << message;
  EXPECT_NE(message.find("env.nonesuch (i32, f64) -> (i64): there is no such function"), std::string::npos) << message;
  EXPECT_NE(message.find("wasi_snapshot_preview1.fd_close (i64) -> (i32): Spore offers it as (i32) -> (i32)"),
            std::string::npos)
      << message;
  EXPECT_NE(message.find("other.fd_write"), std::string::npos) << message;
  EXPECT_NE(message.find("env.memory: a memory"), std::string::npos) << message;
  EXPECT_NE(message.find("env.table: a table"), std::string::npos) << message;
  EXPECT_NE(message.find("env.g: a global"), std::string::npos) << message;
  EXPECT_EQ(message.find("1.fd_write"), std::string::npos) << message;
}

TEST(Link, ErrorOfAHostileModuleIsBounded) {
  Importer importer;
  wasm::Signature huge;
  huge.params.assign(1000, kI32);
  for (int i = 0; i < 20'000; ++i) importer.function("env", "f" + std::to_string(i), huge);
  importer.function(std::string(1 << 20, 'm'), "x\ny", {});
  const auto links = link(importer.info());
  ASSERT_FALSE(links);
  EXPECT_LT(links.error().message.size(), kLinkErrorBytesMax + 4096);
  EXPECT_NE(links.error().message.find("20001 imports"), std::string::npos);
  EXPECT_NE(links.error().message.find(" more"), std::string::npos);
}

}  // namespace
}  // namespace spore::host
