%% SPDX-License-Identifier: Apache-2.0
%% What h() shows in the shells: scripts/build-shell-docs.sh built it beside the modules that are tested. It takes
%% edoc, as other tests do; scripts/setup.sh installs it.
-module(tokamak_shell_docs_tests).

-include_lib("eunit/include/eunit.hrl").
-include_lib("kernel/include/eep48.hrl").

-define(SCRIPT, "sh scripts/build-shell-docs.sh ").

%% edoc reads all modules for it: on a busy machine that takes longer than the 5 s that eunit gives.
every_public_module_and_function_is_documented_in_the_shell_test_() ->
    {timeout, 120, fun every_public_module_and_function_is_documented/0}.

every_public_module_and_function_is_documented() ->
    [_ | _] = Public = tokamak_examples:public_modules(),
    ?assertEqual([], lists:append([undocumented(Module, Edoc) || {Module, Edoc} <- Public])).

undocumented(Module, Edoc) ->
    {ok, #docs_v1{module_doc = About, docs = Docs}} = code:get_doc(Module),
    Texts = maps:from_list([{{Name, Arity}, Text} || {{function, Name, Arity}, _, _, Text, _} <- Docs]),
    Functions = [{Name, Arity} || {Name, Arity, _, _} <- tokamak_examples:documented(Edoc), Name =/= module],
    [{Module, module} || not is_text(About)] ++
        [{Module, Id} || Id <- Functions, not is_text(maps:get(Id, Texts, none))].

is_text(#{<<"en">> := Text}) -> Text =/= [] andalso Text =/= <<>>;
is_text(_) -> false.

the_shell_shows_the_text_and_the_example_of_a_function_test() ->
    {ok, Docs} = code:get_doc(tokamak),
    Shown = tokamak_test:in_process(fun() ->
        %% shell_docs asks the terminal how it is, and eunit's has no answer.
        true = group_leader(whereis(user), self()),
        unicode:characters_to_list(shell_docs:render(tokamak, call, 2, Docs))
    end),
    [?assertNotEqual(nomatch, string:find(Shown, Part)) || Part <- ["Calls an operation", "tokamak:call(echo, "]].

private_modules_have_none_test() ->
    ?assertNot(filelib:is_file(filename:join(chunks(code:lib_dir(tokamak)), "tokamak_nif.chunk"))),
    ?assert(filelib:is_file(filename:join(chunks(code:lib_dir(tokamak)), "tokamak_loop.chunk"))).

nothing_is_done_while_the_sources_stay_the_same_test_() ->
    in_application(fun(Application) ->
        Chunk = filename:join(chunks(Application), "tokamak.chunk"),
        ?assertEqual("", os:cmd(?SCRIPT ++ Application)),
        ok = file:write_file(Chunk, "as it was"),
        ?assertEqual("", os:cmd(?SCRIPT ++ Application)),
        ?assertEqual({ok, <<"as it was">>}, file:read_file(Chunk)),
        ok = file:change_time(filename:join(chunks(Application), ".built"), {{2001, 1, 1}, {0, 0, 0}}),
        ?assertEqual("", os:cmd(?SCRIPT ++ Application)),
        ?assertNotEqual({ok, <<"as it was">>}, file:read_file(Chunk))
    end).

%% As where edoc is not installed: an escript that fails is found first.
a_failure_is_one_line_once_and_ends_no_build_test_() ->
    in_application(fun(Application) ->
        Bin = filename:join(Application, "bin"),
        ok = file:make_dir(Bin),
        ok = file:make_symlink(os:find_executable("false"), filename:join(Bin, "escript")),
        Build = "ERLANG_ROOT_DIR=" ++ Application ++ " " ++ ?SCRIPT ++ Application ++ " && echo went on",
        ?assertMatch(["tokamak: no documentation" ++ _, "went on"], string:lexemes(os:cmd(Build), "\n")),
        ?assertEqual("went on\n", os:cmd(Build)),
        ?assertNot(filelib:is_file(filename:join(chunks(Application), "tokamak.chunk")))
    end).

%% A directory that looks like the compiled application.
in_application(Test) ->
    {timeout, 60, fun() ->
        tokamak_test:with_directory(fun(Application) ->
            ok = file:make_dir(filename:join(Application, "ebin")),
            ok = file:write_file(filename:join([Application, "ebin", "tokamak.beam"]), <<>>),
            Test(Application)
        end)
    end}.

chunks(Application) ->
    filename:join([Application, "doc", "chunks"]).
