/* Writers that live a millisecond, for the tests of attribution. Run under the name of a login service:
 *   sshd LOGINUID CGROUP.PROCS OUT FIRST COUNT PROGRAM...
 * sets its login user, joins the control group, and runs the programs in turn, each with the name of a file to write;
 * the program "-" is a child that writes by itself. Run under any other name it is such a program. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static int put(const char *path, const char *text, int flags) {
  int fd = open(path, flags, 0644);
  int failed = fd < 0 || write(fd, text, strlen(text)) != (ssize_t)strlen(text);
  if (fd >= 0) close(fd);
  return failed;
}

int main(int count, char **words) {
  const char *name = strrchr(words[0], '/');
  if (strcmp(name ? name + 1 : words[0], "sshd") != 0)
    return put(words[count - 1], "x", O_WRONLY | O_CREAT | O_TRUNC);
  if (count < 7 || put("/proc/self/loginuid", words[1], O_WRONLY)) return 2;
  if (*words[2] && put(words[2], "0", O_WRONLY)) return 3;
  int programs = count - 6, first = atoi(words[4]), all = atoi(words[5]);
  for (int number = first; number < first + all; number++) {
    char path[4096];
    char *program = words[6 + number % programs];
    snprintf(path, sizeof path, "%s/%d", words[3], number);
    pid_t child = fork();
    if (child == 0) {
      if (strcmp(program, "-") == 0) _exit(put(path, "x", O_WRONLY | O_CREAT | O_TRUNC));
      execl(program, program, path, (char *)0);
      _exit(4);
    }
    int status;
    if (child < 0 || waitpid(child, &status, 0) != child || status != 0) return 5;
  }
  return 0;
}
