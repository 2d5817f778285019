// Real Redis servers for tests: each a process on a free port of loopback with a temporary directory, stopped by its
// process id. Null where there is no redis-server.
#pragma once

#include <sys/types.h>

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

namespace spore::state {

class RedisTestServer {
 public:
  struct Options {
    std::vector<std::string> arguments;     // more of the command line: "--appendonly", "yes"
    bool tls = false;                       // certificates are made in the directory
    std::string server_name = "localhost";  // in the certificate
  };
  static std::unique_ptr<RedisTestServer> start(Options options);
  static std::unique_ptr<RedisTestServer> start() { return start(Options()); }
  ~RedisTestServer();

  int port() const { return port_; }
  std::string url() const;
  const std::filesystem::path& directory() const { return directory_; }

  // What redis-cli prints for these words.
  std::string ask(const std::vector<std::string>& words) const;
  void signal(int number) const;  // SIGSTOP, SIGCONT
  void kill();                    // and waits for its end
  bool start_again();             // on the same port and directory

 private:
  RedisTestServer() = default;
  bool launch();
  bool make_certificates() const;

  Options options_;
  std::filesystem::path directory_;
  int port_ = 0;
  pid_t pid_ = -1;
};

class RedisTestCluster {
 public:
  static std::unique_ptr<RedisTestCluster> start(int nodes = 3);
  std::string url() const;
  std::vector<std::unique_ptr<RedisTestServer>>& nodes() { return nodes_; }

 private:
  std::vector<std::unique_ptr<RedisTestServer>> nodes_;
};

// Runs a program to its end; what it printed. Status -1: it could not be started or did not end well.
struct ProgramResult {
  int status = -1;
  std::string output;
};
ProgramResult run_program(const std::vector<std::string>& words);

}  // namespace spore::state
