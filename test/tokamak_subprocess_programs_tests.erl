%% SPDX-License-Identifier: Apache-2.0
%% Real programs, as people use them. One that is not installed is skipped with a line that says so.
-module(tokamak_subprocess_programs_tests).

-include_lib("eunit/include/eunit.hrl").

-define(s, tokamak_subprocess).

programs_test_() ->
    {setup, fun() -> {ok, _} = application:ensure_all_started(tokamak) end,
        fun(_) -> application:stop(tokamak) end, [
            with("git", "git: a repository is made, committed to and read", fun git/0),
            with("tar", "tar: an archive goes out of one and into another", fun tar/0),
            with("sort", "sort: 300,000 lines come back in order", fun sort/0),
            with("python3", "python3: a script from standard input, with both outputs", fun python/0),
            with("bc", "bc: a conversation", fun bc/0),
            with("sqlite3", "sqlite3: a conversation", fun sqlite/0)
        ]}.

with(Program, Title, Test) ->
    tokamak_test:with_program(Program, tokamak_test:cases([{Title, Test}])).

git() ->
    tokamak_test:with_directory(fun(Dir) ->
        Git = fun(Arguments) ->
            Identity = ["-c", "user.name=T", "-c", "user.email=t@example.org"],
            Options = #{cd => Dir, env => [{"GIT_CONFIG_GLOBAL", "/dev/null"}]},
            ?s:run(["git" | Identity] ++ Arguments, Options)
        end,
        {ok, #{status := 0}} = Git(["init", "-q"]),
        ok = file:write_file(filename:join(Dir, "file"), "content\n"),
        {ok, #{status := 0}} = Git(["add", "file"]),
        {ok, #{status := 0}} = Git(["commit", "-q", "-m", "first"]),
        ?assertMatch({ok, #{stdout := <<"first\n">>}}, Git(["log", "--format=%s"])),
        ?assertMatch({ok, #{stdout := <<"content\n">>}}, Git(["show", "HEAD:file"])),
        {ok, #{status := 128, stderr := Error}} = Git(["show", "nothing"]),
        ?assertNotEqual(nomatch, binary:match(Error, <<"nothing">>))
    end).

tar() ->
    tokamak_test:with_directory(fun(Dir) ->
        Content = crypto:strong_rand_bytes(3000000),
        ok = file:write_file(filename:join(Dir, "data"), Content),
        {ok, #{status := 0, stdout := Archive}} = ?s:run(["tar", "-cf", "-", "data"], #{cd => Dir}),
        {ok, #{status := 0, stdout := Back}} = ?s:run(["tar", "-xOf", "-", "data"], #{stdin => Archive}),
        ?assert(Back =:= Content)
    end).

sort() ->
    Numbers = [rand:uniform(1000000000) || _ <- lists:seq(1, 300000)],
    Lines = [[integer_to_list(N), $\n] || N <- Numbers],
    {ok, #{status := 0, stdout := Out}} = ?s:run(["sort", "-n"], #{stdin => Lines}),
    Sorted = [binary_to_integer(Line) || Line <- binary:split(Out, <<"\n">>, [global, trim])],
    ?assert(Sorted =:= lists:sort(Numbers)).

python() ->
    Script =
        "import sys\n"
        "for n in range(20000):\n"
        "    print(n)\n"
        "    print(-n, file=sys.stderr)\n"
        "sys.exit(42)\n",
    {ok, #{status := 42, stdout := Out, stderr := Err}} = ?s:run(["python3", "-"], #{stdin => Script}),
    ?assertEqual(20000, length(binary:split(Out, <<"\n">>, [global, trim]))),
    ?assertEqual(20000, length(binary:split(Err, <<"\n">>, [global, trim]))).

bc() ->
    {ok, P} = ?s:start(["bc", "-q"]),
    [
        begin
            ok = ?s:write(P, io_lib:format("~b * ~b\n", [N, N])),
            ?assertEqual(N * N, binary_to_integer(line(P, <<>>)))
        end
     || N <- lists:seq(1, 200)
    ],
    ok = ?s:write(P, "1 / 0\nquit\n"),
    {Complaint, End} = stderr_to_end(P, <<>>),
    ?assertNotEqual(nomatch, re:run(Complaint, "zero")),
    ?assertEqual({exit, 0}, End).

%% It may come in parts.
stderr_to_end(P, Before) ->
    case ?s:recv(P) of
        {ok, {stderr, Bin}} -> stderr_to_end(P, <<Before/binary, Bin/binary>>);
        End -> {Before, End}
    end.

sqlite() ->
    {ok, P} = ?s:start(["sqlite3", ":memory:"]),
    ok = ?s:write(P, "create table t (n integer);\n"),
    [ok = ?s:write(P, io_lib:format("insert into t values (~b);\n", [N])) || N <- lists:seq(1, 100)],
    ok = ?s:write(P, "select sum(n) from t;\n"),
    ?assertEqual(<<"5050">>, line(P, <<>>)),
    ok = ?s:close_stdin(P),
    ?assertEqual({exit, 0}, ?s:recv(P)).

line(P, Before) ->
    {ok, {stdout, Bin}} = ?s:recv(P),
    case binary:split(<<Before/binary, Bin/binary>>, <<"\n">>) of
        [Line, <<>>] -> Line;
        [Part] -> line(P, Part)
    end.
