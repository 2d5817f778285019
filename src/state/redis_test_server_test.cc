#include "state/redis_test_server.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <random>
#include <thread>

#include "base/fd.h"

namespace spore::state {
namespace {

namespace fs = std::filesystem;
using std::chrono::steady_clock;

pid_t start_program(const std::vector<std::string>& words, int output_fd) {
  std::vector<char*> arguments;
  for (const std::string& word : words) arguments.push_back(const_cast<char*>(word.c_str()));
  arguments.push_back(nullptr);
  const pid_t parent = ::getpid();
  const pid_t pid = ::fork();
  if (pid != 0) return pid;
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);  // not to outlive a test that crashed
  if (::getppid() != parent) ::_exit(126);
  ::dup2(output_fd, STDOUT_FILENO);
  ::dup2(output_fd, STDERR_FILENO);
  ::execvp(arguments[0], arguments.data());
  ::_exit(127);
}

bool is_free(int port) {
  const UniqueFd fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return ::bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0;
}

// Below what the system gives to clients; the port of the cluster's bus, 10000 above, is free as well.
int free_port() {
  std::random_device random;
  for (int i = 0; i < 1000; ++i) {
    const int port = 12'000 + static_cast<int>(random() % 10'000);
    if (is_free(port) && is_free(port + 10'000)) return port;
  }
  return 0;
}

bool there_is(const char* program) {
  std::string_view path = std::getenv("PATH") ? std::getenv("PATH") : "/usr/bin";
  while (!path.empty()) {
    const std::string_view folder = path.substr(0, path.find(':'));
    if (::access((std::string(folder) + "/" + program).c_str(), X_OK) == 0) return true;
    path.remove_prefix(std::min(path.size(), folder.size() + 1));
  }
  return false;
}

}  // namespace

ProgramResult run_program(const std::vector<std::string>& words) {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) return {};
  UniqueFd out(ends[0]), in(ends[1]);
  const pid_t pid = start_program(words, in.get());
  in.reset();
  ProgramResult result;
  auto bytes = read_all(out.get(), 16 << 20);
  if (bytes) result.output = as_text(*bytes);
  int status = 0;
  if (::waitpid(pid, &status, 0) == pid && WIFEXITED(status)) result.status = WEXITSTATUS(status);
  return result;
}

std::unique_ptr<RedisTestServer> RedisTestServer::start(Options options) {
  if (!there_is("redis-server") || !there_is("redis-cli")) return nullptr;
  std::unique_ptr<RedisTestServer> out(new RedisTestServer);
  out->options_ = std::move(options);
  std::string name = (fs::temp_directory_path() / "spore-redis-XXXXXX").string();
  out->directory_ = ::mkdtemp(name.data());
  if (out->options_.tls && !out->make_certificates()) return nullptr;
  for (int i = 0; i < 20; ++i) {
    out->port_ = free_port();
    if (out->launch()) return out;
  }
  return nullptr;
}

RedisTestServer::~RedisTestServer() {
  kill();
  std::error_code ignored;
  fs::remove_all(directory_, ignored);
}

bool RedisTestServer::make_certificates() const {
  return run_program({"openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
                      "-keyout", (directory_ / "key.pem").string(), "-out", (directory_ / "cert.pem").string(), "-days",
                      "2", "-subj", "/CN=test", "-addext", "subjectAltName=DNS:" + options_.server_name})
             .status == 0;
}

bool RedisTestServer::launch() {
  const std::string port = std::to_string(port_);
  std::vector<std::string> words{
      "redis-server", "--bind",     "127.0.0.1", "--dir",     directory_.string(),          "--save", "", "--daemonize",
      "no",           "--loglevel", "warning",   "--logfile", (directory_ / "log").string()};
  for (const char* word : options_.tls ? std::initializer_list<const char*>{"--port", "0", "--tls-port"}
                                       : std::initializer_list<const char*>{"--port"})
    words.push_back(word);
  words.push_back(port);
  if (options_.tls)
    for (const std::string& word :
         {std::string("--tls-cert-file"), (directory_ / "cert.pem").string(), std::string("--tls-key-file"),
          (directory_ / "key.pem").string(), std::string("--tls-ca-cert-file"), (directory_ / "cert.pem").string(),
          std::string("--tls-auth-clients"), std::string("no")})
      words.push_back(word);
  words.insert(words.end(), options_.arguments.begin(), options_.arguments.end());
  const UniqueFd null(::open("/dev/null", O_RDWR | O_CLOEXEC));
  pid_ = start_program(words, null.get());
  const auto end = steady_clock::now() + std::chrono::seconds(20);
  while (steady_clock::now() < end) {
    if (::waitpid(pid_, nullptr, WNOHANG) == pid_) {
      pid_ = -1;
      return false;
    }
    const std::string answer = ask({"PING"});
    if (answer.starts_with("PONG") || answer.starts_with("NOAUTH") || answer.starts_with("LOADING")) return true;
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  kill();
  return false;
}

std::string RedisTestServer::url() const {
  return (options_.tls ? "rediss://localhost:" : "redis://127.0.0.1:") + std::to_string(port_);
}

std::string RedisTestServer::ask(const std::vector<std::string>& words) const {
  std::vector<std::string> all{"redis-cli", "-h", options_.tls ? "localhost" : "127.0.0.1", "-p",
                               std::to_string(port_)};
  if (options_.tls)
    for (const std::string& word : {std::string("--tls"), std::string("--insecure")}) all.push_back(word);
  all.insert(all.end(), words.begin(), words.end());
  return run_program(all).output;
}

void RedisTestServer::signal(int number) const {
  if (pid_ > 0) ::kill(pid_, number);
}

void RedisTestServer::kill() {
  if (pid_ <= 0) return;
  ::kill(pid_, SIGKILL);
  ::waitpid(pid_, nullptr, 0);
  pid_ = -1;
}

bool RedisTestServer::start_again() {
  kill();
  return launch();
}

std::unique_ptr<RedisTestCluster> RedisTestCluster::start(int nodes) {
  auto out = std::make_unique<RedisTestCluster>();
  std::vector<std::string> words{"redis-cli", "--cluster", "create"};
  for (int i = 0; i < nodes; ++i) {
    auto node = RedisTestServer::start({.arguments = {"--cluster-enabled", "yes", "--cluster-node-timeout", "2000"}});
    if (!node) return nullptr;
    words.push_back("127.0.0.1:" + std::to_string(node->port()));
    out->nodes_.push_back(std::move(node));
  }
  words.push_back("--cluster-yes");
  if (run_program(words).status != 0) return nullptr;
  const auto end = steady_clock::now() + std::chrono::seconds(30);
  for (auto& node : out->nodes_)
    while (node->ask({"CLUSTER", "INFO"}).find("cluster_state:ok") == std::string::npos) {
      if (steady_clock::now() > end) return nullptr;
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
  return out;
}

std::string RedisTestCluster::url() const {
  std::string out = "redis-cluster://";
  for (const auto& node : nodes_)
    out += (out.ends_with('/') ? "127.0.0.1:" : ",127.0.0.1:") + std::to_string(node->port());
  return out;
}

TEST(RedisTestServer, AnswersAndIsGoneAfterwards) {
  auto server = RedisTestServer::start();
  if (!server) GTEST_SKIP() << "there is no redis-server";
  const fs::path directory = server->directory();
  EXPECT_EQ(server->ask({"SET", "a", "b"}), "OK\n");
  EXPECT_EQ(server->ask({"GET", "a"}), "b\n");
  server->kill();
  EXPECT_NE(server->ask({"GET", "a"}), "b\n");
  ASSERT_TRUE(server->start_again());
  EXPECT_EQ(server->ask({"GET", "a"}), "\n");
  server.reset();
  EXPECT_FALSE(fs::exists(directory));
}

}  // namespace spore::state
