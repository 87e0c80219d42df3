%% SPDX-License-Identifier: Apache-2.0
%% Random arguments, variables and directories: what a child can get arrives in it byte by byte, everything else is
%% refused with an explanation or an error, and nothing is left behind.
-module(tokamak_subprocess_property_tests).

-include_lib("eunit/include/eunit.hrl").
-import(proper_types, [boolean/0, exactly/1, frequency/1, list/1, oneof/1, range/2]).

-define(s, tokamak_subprocess).
-define(TESTS, 400).
%% The longest string that Linux passes, its end included, where pages have 4 KiB.
-define(LONGEST, 131072).
%% Prints its arguments and its directory, and, as errors, its environment.
-define(SHOW, "/bin/cat /proc/$$/cmdline; /bin/cat /proc/$$/environ >&2; /bin/readlink -n /proc/$$/cwd").

property_test_() ->
    tokamak_test:with_application(
        tokamak_test:cases(120, [
            {"what is given arrives byte by byte, or is refused", fun given_or_refused/0},
            {"what is longer than the system takes is e2big, to the byte", fun too_long/0}
        ])
    ).

given_or_refused() ->
    tokamak_test:with_directory(fun(Directory) ->
        Property = proper:forall(
            {boolean(), list(text()), environment(), directory(), mistake()},
            fun(Generated) -> holds(Directory, Generated) end
        ),
        leaves_nothing(fun() -> ?assert(proper:quickcheck(Property, [quiet, {numtests, ?TESTS}])) end)
    end).

too_long() ->
    Longest = binary:copy(<<"x">>, ?LONGEST - 1),
    Show = fun(Argument, Variable) ->
        ?s:run(["/bin/sh", "-c", ?SHOW, Argument], #{clear_env => true, env => [{"A", Variable}], cd => "/"})
    end,
    leaves_nothing(fun() ->
        {ok, #{stdout := Stdout, stderr := Stderr}} = Show(Longest, binary_part(Longest, 2, ?LONGEST - 3)),
        ?assertEqual({?LONGEST - 1, ?LONGEST - 3}, {count(<<"x">>, Stdout), count(<<"x">>, Stderr)}),
        ?assertEqual({error, e2big}, Show(<<Longest/binary, "x">>, "")),
        ?assertEqual({error, e2big}, Show("", binary_part(Longest, 1, ?LONGEST - 2))),
        %% More than any stack has room for, then more than a request may have.
        [?assertEqual({error, e2big}, ?s:start(["true" | lists:duplicate(N, Longest)])) || N <- [55, 100]]
    end).

count(What, Where) -> length(binary:matches(Where, What)).

%% Runs a function in whose course a spawner is there already.
leaves_nothing(Fun) ->
    {ok, _} = ?s:run(["true"]),
    {Before, Spawner} = {tokamak_test:resources(), spawner_files()},
    Fun(),
    tokamak_test:given_back(Before),
    tokamak_test:wait_for(Spawner, fun spawner_files/0),
    tokamak_test:wait_until(fun() ->
        {ok, Pid, Children} = tokamak_nif:subprocess_spawner(),
        Children =:= 0 andalso tokamak_wait:children(Pid) =:= []
    end),
    ?assertEqual([], tokamak_test:mailbox()).

spawner_files() ->
    {ok, Pid, _} = tokamak_nif:subprocess_spawner(),
    {ok, Names} = file:list_dir("/proc/" ++ integer_to_list(Pid) ++ "/fd"),
    length(Names).

%%% What is generated

text() ->
    frequency([{150, {bytes, bytes()}}, {150, {characters, list(character())}}, {1, {wrong, oneof(wrong_texts())}}]).

bytes() ->
    proper_types:bind(list(frequency([{5000, range(1, 255)}, {1, 0}])), fun erlang:list_to_binary/1, false).

character() ->
    frequency([
        {2000, range(1, 127)},
        {2000, range(128, 255)},
        {1000, range(256, 16#D7FF)},
        {1000, range(16#E000, 16#10FFFF)},
        {1, oneof([0, 16#D800, 16#DFFF, 16#110000, -1])}
    ]).

wrong_texts() ->
    [exactly(Wrong) || Wrong <- [atom, 1, 1.5, {}, #{}, <<1:3>>, [$a | b], [<<255>>], [a], [[]|$a], [$a, -1]]].

environment() ->
    oneof([{list, list(variable())}, {map, list(variable())}]).

variable() ->
    {frequency([{200, name()}, {1, text()}]), frequency([{4, text()}, {1, false}])}.

%% Not empty, and without an equals sign.
name() ->
    proper_types:bind(
        text(),
        fun
            ({bytes, Bytes}) -> {bytes, <<"N", (binary:replace(Bytes, <<"=">>, <<>>, [global]))/binary>>};
            ({characters, Characters}) -> {characters, [$N | [C || C <- Characters, C =/= $=]]};
            (Wrong) -> exactly(Wrong)
        end,
        false
    ).

directory() ->
    frequency([{3, none}, {3, {made, text()}}, {1, {missing, text()}}]).

mistake() ->
    frequency([{30, none} | [{1, exactly(Mistake)} || Mistake <- mistakes()]]).

mistakes() ->
    [
        {argv, improper},
        {argv, empty},
        {env, [a]},
        {env, [{"A"}]},
        {env, [{"A", "1"} | {"B", "2"}]},
        {env, #{"A" => true}},
        {cd, ""},
        {cd, 5},
        {clear_env, 1},
        {kill_timeout, -1},
        {kill_timeout, 1 bsl 32},
        {stdout, {file, ""}},
        {stderr, out},
        {stdin, {}},
        {unknown, 1}
    ].

%%% What has to come of it

holds(Directory, {Runs, Texts, Variables, Cd, Mistake}) ->
    {Arguments, ArgumentBytes} = lists:unzip([{term(Text), bytes(Text)} || Text <- Texts]),
    {Changes, Environment} = changes(Variables),
    {CdOption, CdResult} = cd(Directory, Cd),
    {Argv, Options} = spoil(
        Mistake, ["/bin/sh", "-c", ?SHOW | Arguments], maps:merge(#{clear_env => true, env => Changes}, CdOption)
    ),
    Wrong = lists:usort(
        [1 || lists:member(wrong, ArgumentBytes)] ++
            [2 || Environment =:= wrong orelse CdResult =:= wrong] ++
            [wrong_argument(Mistake) || Mistake =/= none]
    ),
    Result = result(Runs, Argv, Options),
    case {Wrong, CdResult} of
        {[_ | _], _} ->
            expect({refused, Wrong}, Result);
        {[], missing} ->
            expect({error, enoent}, Result);
        {[], Where} ->
            Printed = [[Argument, 0] || Argument <- ["/bin/sh", "-c", ?SHOW | ArgumentBytes]],
            expect({iolist_to_binary([Printed, Where]), Environment}, Result)
    end.

spoil(none, Argv, Options) -> {Argv, Options};
spoil({argv, improper}, Argv, Options) -> {Argv ++ <<"x">>, Options};
spoil({argv, empty}, _Argv, Options) -> {[], Options};
spoil({Key, Value}, Argv, Options) -> {Argv, Options#{Key => Value}}.

wrong_argument({argv, _}) -> 1;
wrong_argument(_Option) -> 2.

expect(Same, Same) ->
    true;
expect(Expected, Result) ->
    io:format(user, "expected ~0p~nbut was ~0p~n", [Expected, Result]),
    false.

result(Runs, Argv, Options) ->
    try
        case Runs of
            true -> ?s:run(Argv, Options);
            false -> run_by_hand(Argv, Options)
        end
    of
        {ok, #{status := 0, stdout := Stdout, stderr := Stderr}} -> {Stdout, variables(Stderr)};
        Other -> Other
    catch
        error:badarg:Stack -> {refused, lists:sort(maps:keys(tokamak_error:format_error(badarg, Stack)))}
    end.

run_by_hand(Argv, Options) ->
    case ?s:start(Argv, Options) of
        {ok, P} -> receive_all(P, #{stdout => <<>>, stderr => <<>>});
        Error -> Error
    end.

receive_all(P, Output) ->
    case ?s:recv(P) of
        {ok, {Stream, Data}} ->
            #{Stream := Before} = Output,
            receive_all(P, Output#{Stream := <<Before/binary, Data/binary>>});
        {exit, Status} -> {ok, Output#{status => Status}};
        Error -> Error
    end.

variables(Output) ->
    lists:sort([Variable || Variable <- binary:split(Output, <<0>>, [global]), Variable =/= <<>>]).

term({_Kind, Term}) -> Term.

%% The bytes of a text, in a way of its own.
bytes({bytes, Bytes}) ->
    without_nul(Bytes);
bytes({characters, Characters}) ->
    try
        case file:native_name_encoding() of
            utf8 -> without_nul(<<<<C/utf8>> || C <- Characters>>);
            latin1 -> without_nul(list_to_binary(Characters))
        end
    catch
        error:badarg -> wrong
    end;
bytes({wrong, _}) ->
    wrong.

without_nul(Bytes) ->
    case lists:member(0, binary_to_list(Bytes)) of
        true -> wrong;
        false -> Bytes
    end.

changes({list, Variables}) ->
    {[change(Variable) || Variable <- Variables], environment_of(Variables)};
changes({map, Variables}) ->
    Each = maps:from_list([{term(Name), Variable} || {Name, _} = Variable <- Variables]),
    {maps:map(fun(_, Variable) -> element(2, change(Variable)) end, Each), environment_of(maps:values(Each))}.

change({Name, false}) -> {term(Name), false};
change({Name, Value}) -> {term(Name), term(Value)}.

environment_of(Variables) ->
    case lists:foldl(fun set/2, #{}, Variables) of
        wrong -> wrong;
        Environment -> lists:sort([<<Name/binary, "=", Value/binary>> || {Name, Value} <- maps:to_list(Environment)])
    end.

set(_Variable, wrong) -> wrong;
set({Name, false}, Environment) -> set(bytes(Name), false, Environment);
set({Name, Value}, Environment) -> set(bytes(Name), bytes(Value), Environment).

set(Name, Value, _Environment) when Name =:= wrong; Name =:= <<>>; Value =:= wrong ->
    wrong;
set(Name, Value, Environment) ->
    case {binary:match(Name, <<"=">>), Value} of
        {nomatch, false} -> maps:remove(Name, Environment);
        {nomatch, _} -> Environment#{Name => Value};
        _ -> wrong
    end.

%% The option, and where it leads.
cd(_Directory, none) ->
    {ok, Here} = file:get_cwd(),
    {#{}, real(Here)};
cd(_Directory, {_, {wrong, _}}) ->
    {#{cd => {}}, wrong};
cd(Directory, {made, Text}) ->
    Name = directory_name(Text),
    Path = below(Directory, Name),
    case bytes(Name) of
        wrong ->
            {#{cd => term(Path)}, wrong};
        Bytes ->
            Made = file:make_dir(bytes(Path)),
            true = Made =:= ok orelse Made =:= {error, eexist},
            {#{cd => term(Path)}, <<(real(Directory))/binary, "/", Bytes/binary>>}
    end;
cd(Directory, {missing, Text}) ->
    Path = below(filename:join(Directory, "missing"), Text),
    case bytes(Path) of
        wrong -> {#{cd => term(Path)}, wrong};
        _ -> {#{cd => term(Path)}, missing}
    end.

%% Short enough for a name.
directory_name({bytes, Bytes}) ->
    {bytes, <<"d", <<<<B>> || <<B>> <= Bytes, B =/= $/>>/binary>>};
directory_name({characters, Characters}) ->
    {characters, [$d | lists:sublist([C || C <- Characters, C =/= $/], 50)]}.

below(Directory, {bytes, Bytes}) ->
    {bytes, <<(list_to_binary(Directory))/binary, "/", Bytes/binary>>};
below(Directory, {characters, Characters}) ->
    {characters, Directory ++ "/" ++ Characters}.

real(Directory) ->
    {ok, #{stdout := Real}} = ?s:run(["/bin/readlink", "-nf", Directory]),
    Real.
